"""How good a model is: how near its pictures are to real ones, and to what they were asked to show."""
