defmodule Mlx.AtOnce do
  @moduledoc """
  Runs a function in many processes that all start together.
  """

  @doc """
  What `fun` gives in each of `count` processes, which it gets the number of.
  """
  def at_once(count, fun, timeout \\ patience()) do
    tasks =
      for at <- 1..count do
        Task.async(fn ->
          receive do: (:go -> fun.(at))
        end)
      end

    Enum.each(tasks, &send(&1.pid, :go))
    Task.await_many(tasks, timeout)
  end

  # On a GPU whatever waits for the shared stream may wait for kernels that MLX compiles there.
  defp patience, do: if(Mlx.TestDevice.device() == :gpu, do: 250_000, else: 25_000)
end
