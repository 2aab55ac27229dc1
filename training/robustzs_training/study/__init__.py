"""The study of training methods on data that anyone can rebuild."""
