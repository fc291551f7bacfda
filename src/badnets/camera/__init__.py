"""The physical chain from a sign to the picture that a net is shown: pose, light, print, blur, sensor, JPEG."""
