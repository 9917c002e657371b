"""What a noise curve is: its file, intervals, differences to others, and how it is said."""
