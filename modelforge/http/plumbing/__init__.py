"""What every route is made of: requests read, answers and problems written, files and messages sent."""
