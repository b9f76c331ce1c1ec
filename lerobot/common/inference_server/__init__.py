"""Inference on another machine: the wire format, the server beside the graphics card, the client beside the arm."""
