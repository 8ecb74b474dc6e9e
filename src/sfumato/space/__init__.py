"""Shapes: cameras, radiance fields, meshes and point clouds.

Coordinates are OpenGL's and glTF's: right-handed, x to the right, y up, z towards the viewer. A shape lies
within [−1, 1]³ and its front faces +z. At azimuth 0 and elevation 0 a camera is on the positive z axis; at
azimuth 90 it is on the positive x axis. Angles are in degrees.
"""
