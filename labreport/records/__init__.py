"""What a training leaves behind: its record, the store on disk, and what made it."""
