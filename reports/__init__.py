"""Reports: finished artefacts (plain dicts) become figures and self-contained HTML pages; no sums here."""
