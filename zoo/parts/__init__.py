"""What a method is made of. Read this room to write a method; `zoo` exports its names."""
