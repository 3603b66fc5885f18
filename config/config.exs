import Config

if config_env() == :test do
  # Doctests compare what is printed.
  config :mlx, :add_backend_on_inspect, false

  # The same examples at every run; other seeds look further.
  config :stream_data, initial_seed: String.to_integer(System.get_env("PROPERTY_SEED", "0"))
end
