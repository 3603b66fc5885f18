import Config

if config_env() == :test do
  # Doctests compare what is printed.
  config :mlx, :add_backend_on_inspect, false
end
