"""What any long computation needs and no GAN is in: files, devices, checkpoints, signals and the loop."""
