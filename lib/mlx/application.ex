defmodule Mlx.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    configure(:dispatch, [:pipelined, :sync], :pipelined)
    configure(:f64, [:error, :downcast], :error)
    limit_memory(Application.get_env(:mlx, :memory_limit))
    Supervisor.start_link([Mlx.Compiler.Cache], strategy: :one_for_one, name: Mlx.Supervisor)
  end

  defp limit_memory(nil), do: :ok

  defp limit_memory(bytes) when is_integer(bytes) and bytes > 0,
    do: Mlx.Native.memory_set_limit(bytes)

  defp limit_memory(other) do
    raise ArgumentError,
          "config :mlx, memory_limit: is a positive number of bytes, got: #{inspect(other)}"
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
