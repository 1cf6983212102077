"""Studies: methods times seeds, trained side by side, stopped and continued, compared at the end."""
