"""Recording a loop that nobody edits."""
