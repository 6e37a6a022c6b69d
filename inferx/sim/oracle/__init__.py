"""What nobody can beat: bounds on a replay, from all of its requests at once."""
