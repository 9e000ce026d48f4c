"""What a run keeps on disk: its folder, its rows, its trained methods and the model files given to it."""
