"""ModelForge: fine-tune language models on your own machine. The server; it never imports torch."""
