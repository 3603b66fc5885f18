defmodule Mlx.AtOnce do
  @moduledoc """
  Runs a function in many processes that all start together.
  """

  @doc """
  What `fun` gives in each of `count` processes, which it gets the number of.
  """
  def at_once(count, fun) do
    tasks =
      for at <- 1..count do
        Task.async(fn ->
          receive do: (:go -> fun.(at))
        end)
      end

    Enum.each(tasks, &send(&1.pid, :go))
    Task.await_many(tasks, :infinity)
  end
end
