"""The last-iterate bound along a run."""
