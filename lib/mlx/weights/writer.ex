defmodule Mlx.Weights.Writer do
  @moduledoc false

  # Files appear whole or not at all: they are written under other names and renamed when
  # all of them are there.

  alias Mlx.Weights.Source

  @doc """
  Writes files, given as pairs of a path and a function that takes another one, which
  writes bytes. What `obsolete` gives is removed afterwards.
  """
  def write!(files, obsolete \\ fn -> [] end) do
    files = for {path, write} <- files, do: {path, temporary(path), write}
    temporaries = for {_path, temporary, _write} <- files, do: temporary
    guard = guard(temporaries)

    try do
      for {path, temporary, write} <- files, do: write_one!(path, temporary, write)
      for {path, temporary, _} <- files, do: path |> check(File.rename(temporary, path))
      Enum.each(obsolete.(), &File.rm/1)
    after
      remove(temporaries)
      send(guard, :done)
    end

    :ok
  end

  defp temporary(path) do
    Path.join(Path.dirname(path), ".mlx-#{System.pid()}-#{:rand.uniform(2 ** 48)}.part")
  end

  defp write_one!(path, temporary, write) do
    file = path |> check(File.open(temporary, [:write, :raw, :binary, :exclusive]))

    try do
      write.(fn bytes -> check(path, :file.write(file, bytes)) end)
      check(path, :file.sync(file))
    after
      :file.close(file)
    end
  end

  defp check(_path, :ok), do: :ok
  defp check(_path, {:ok, value}), do: value
  defp check(path, {:error, reason}), do: Source.fail!(path, Source.format(reason))

  defp remove(temporaries), do: Enum.each(temporaries, &File.rm/1)

  # A process that is killed removes nothing itself.
  defp guard(temporaries) do
    writer = self()

    spawn(fn ->
      monitor = Process.monitor(writer)

      receive do
        :done -> :ok
        {:DOWN, ^monitor, _, _, _} -> remove(temporaries)
      end
    end)
  end
end
