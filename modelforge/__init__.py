"""ModelForge: fine-tune language models on your own machine. This package is the server; it never imports torch."""
