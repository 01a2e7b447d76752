// A request of the playground as a program would send it.

const set = (body) => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));
const address = () => `${location.origin}/api/playground/generate`;

/** For a shell: within single quotes nothing means anything but a single quote. */
export function asCurl(body) {
  const json = JSON.stringify(set(body)).replaceAll("'", `'\\''`);
  return `curl -H 'Content-Type: application/json' ${address()} -d '${json}'`;
}

export function asPython(body) {
  return `import requests\n\nanswer = requests.post(\n    "${address()}",\n    json=${literal(set(body), "    ")},\n)\nprint(answer.json())\n`;
}

/** JSON as Python writes it: its texts are Python's, its words are not. */
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const within = `${indent}    `;
  const isList = Array.isArray(value);
  const lines = isList
    ? value.map((one) => `${within}${literal(one, within)},`)
    : Object.entries(value).filter(([, one]) => one !== undefined).map(([name, one]) => `${within}${JSON.stringify(name)}: ${literal(one, within)},`);
  return `${isList ? "[" : "{"}\n${lines.join("\n")}\n${indent}${isList ? "]" : "}"}`;
}
