"""Images with a picture of the truth for each: masks and mattes, their losses and errors."""
