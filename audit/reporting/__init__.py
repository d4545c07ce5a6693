"""From results to a report: sentences, tables, plots, a page and Markdown."""
