"""Published runs, predicted and measured side by side."""
