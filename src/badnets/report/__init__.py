"""HTML and Markdown drawn from Records; computes nothing."""
