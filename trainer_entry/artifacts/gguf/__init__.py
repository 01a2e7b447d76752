"""A model as one GGUF file, which llama.cpp and Ollama read, and a Modelfile beside it."""
