// Writes chats by templates as Ollama does: Go's own text/template, over data of the shape that Ollama has.
//
// Each line of the input is {"template": …, "messages": […], "tools": […]}, and each line of the output the text, or
// {"error": …}. What a chat becomes before its template sees it is told in https://docs.ollama.com/template.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type arguments map[string]any

type call struct {
	Function struct {
		Index     int       `json:"index"`
		Name      string    `json:"name"`
		Arguments arguments `json:"arguments"`
	} `json:"function"`
}

type message struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	ToolCalls []call `json:"tool_calls,omitempty"`
}

type property struct {
	Type        any    `json:"type,omitempty"`
	Items       any    `json:"items,omitempty"`
	Description string `json:"description,omitempty"`
	Enum        []any  `json:"enum,omitempty"`
}

type tool struct {
	Type     string `json:"type"`
	Items    any    `json:"items,omitempty"`
	Function struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Parameters  struct {
			Type       string              `json:"type"`
			Defs       any                 `json:"$defs,omitempty"`
			Items      any                 `json:"items,omitempty"`
			Required   []string            `json:"required,omitempty"`
			Properties map[string]property `json:"properties"`
		} `json:"parameters"`
	} `json:"function"`
}

type asked struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
	Tools    []tool    `json:"tools"`
}

func asJSON(value any) string {
	written, _ := json.Marshal(value)
	return string(written)
}

// together puts turns of one role that follow each other into one, but for answers of tools.
func together(messages []message) (string, []*message) {
	var system []string
	var turns []*message
	for place := range messages {
		turn := &messages[place]
		if turn.Role == "system" {
			system = append(system, turn.Content)
		}
		if last := len(turns) - 1; last >= 0 && turns[last].Role == turn.Role && turn.Role != "tool" {
			turns[last].Content += "\n\n" + turn.Content
		} else {
			turns = append(turns, turn)
		}
	}
	return strings.Join(system, "\n\n"), turns
}

func write(line []byte) (string, error) {
	var chat asked
	if err := json.Unmarshal(line, &chat); err != nil {
		return "", err
	}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(template.FuncMap{"json": asJSON}).Parse(chat.Template)
	if err != nil {
		return "", err
	}
	system, turns := together(chat.Messages)
	var text strings.Builder
	err = parsed.Execute(&text, map[string]any{
		"System": system, "Messages": turns, "Tools": chat.Tools, "Response": "",
	})
	return text.String(), err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		text, err := write(lines.Bytes())
		if err != nil {
			out.Encode(map[string]string{"error": err.Error()})
			continue
		}
		out.Encode(text)
	}
}
