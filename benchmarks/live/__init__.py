"""The services as processes of their own, under load: what a user runs, not its parts."""
