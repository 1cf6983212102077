"""Policy and critic, scored and improved."""
