"""The page of a report: one HTML file that needs no server and no network. document.py puts its parts together."""
