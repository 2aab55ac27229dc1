"""Setting temperature and theta on data, and the file that says what they are valid for."""
