"""One module per command of `plan`; each is imported when its command is called."""
