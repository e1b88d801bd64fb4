"""What is written down: trials, results and their files. Needs the standard library only."""
