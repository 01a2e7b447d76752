"""Programs that are told a training's figures beside the server, each by a process of its own."""
