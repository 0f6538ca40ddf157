"""What the competitors' servers run, in environments of their own."""
