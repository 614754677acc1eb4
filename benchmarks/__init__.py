"""Speed and memory, side by side with a textbook implementation of the same method: `python -m benchmarks`."""
