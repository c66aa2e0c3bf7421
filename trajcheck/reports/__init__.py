"""Reports, made from columns alone."""
