"""The commands that need the executor; each module is imported when its command is called."""
