"""What a GPU does for all matrices in one launch, and the count of launches."""
