"""What an evaluation asks of a network beyond its curve, and the folder of the answers."""
