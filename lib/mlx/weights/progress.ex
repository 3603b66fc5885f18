defmodule Mlx.Weights.Progress do
  @moduledoc false

  # How far loading is, to a function or as a bar on the terminal.

  # Less is loaded before one looks.
  @large 1024 * 1024 * 1024
  @width 30

  @doc """
  The function that is told of bytes that are done and of all of them.
  """
  def reporter(function, _total) when is_function(function, 2), do: function
  def reporter(false, _total), do: fn _done, _total -> :ok end
  def reporter(true, _total), do: &bar/2

  def reporter(:auto, total) do
    terminal? = match?({:ok, _}, :io.columns(:standard_error))
    reporter(total >= @large and terminal?, total)
  end

  def reporter(other, _total) do
    raise ArgumentError,
          ":progress is :auto, true, false or a function of two arguments, got: #{inspect(other)}"
  end

  defp bar(done, total) do
    share = if total == 0, do: 1.0, else: done / total
    full = trunc(share * @width)
    bar = String.duplicate("█", full) <> String.duplicate("░", @width - full)
    ending = if done == total, do: "\n", else: ""
    percent = share |> Kernel.*(100) |> trunc() |> Integer.to_string() |> String.pad_leading(3)
    IO.write(:stderr, "\r#{bar} #{percent} % of #{size(total)}#{ending}")
  end

  defp size(bytes) when bytes >= 1_000_000_000, do: "#{Float.round(bytes / 1.0e9, 1)} GB"
  defp size(bytes), do: "#{Float.round(bytes / 1.0e6, 1)} MB"
end
