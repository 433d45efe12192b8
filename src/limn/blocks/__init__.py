"""What three or more models share: modulated convolution, resampling, augmentation."""
