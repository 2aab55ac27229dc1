"""The held-out photographs: real, named pictures that nothing in this project trains on."""
