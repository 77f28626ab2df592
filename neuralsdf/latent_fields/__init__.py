"""
latent_fields
-------------
Shapes given by a latent code and a decoder that many shapes share (DeepSDF, Park et al. 2019). With its code
fixed, a decoder is a plain network of the point, so that everything that works on networks works on them.
"""
