"""What several policies share. No policy lies here; no part imports one."""
