"""What people do with a model in other people's code, one file each: backbones, scikit-learn."""
