defmodule Mlx.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    configure(:dispatch, [:pipelined, :sync], :pipelined)
    Supervisor.start_link([], strategy: :one_for_one, name: Mlx.Supervisor)
  end

  # Read once, because it is asked for at every operation.
  defp configure(key, known, default) do
    value = Application.get_env(:mlx, key, default)

    if value not in known do
      raise ArgumentError, "config :mlx, #{key}: #{inspect(value)} is none of #{inspect(known)}"
    end

    :persistent_term.put({Mlx, key}, value)
  end
end
