"""Drawing from pictures: a picture to begin with, a part of one to draw anew, and what is kept of it."""
