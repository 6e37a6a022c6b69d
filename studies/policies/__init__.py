"""Every serving bundle on every public trace, with intervals and regret."""
