defmodule Mlx.Doctor.Blas do
  @moduledoc false

  # The library that multiplies matrices on the CPU.

  import Mlx.Doctor, only: [ok: 2, warning: 3]

  @known ~r/blas|blis|mkl/i

  def check, do: check(:os.type(), loaded())

  @doc false
  def check({:unix, :darwin}, _libraries), do: ok("BLAS", "Accelerate, of the system")

  def check(_system, libraries) do
    case Enum.find_value(libraries, &Mlx.Native.openblas/1) do
      {config, threads} -> ok("BLAS", "#{version(config)}, #{threads} threads")
      nil -> other(libraries)
    end
  end

  defp version(config), do: config |> String.split() |> Enum.take(2) |> Enum.join(" ")

  defp other([]), do: warning("BLAS", "none is loaded that is known", advice())

  defp other(libraries) do
    names = Enum.map_join(libraries, ", ", &Path.basename/1)

    if names =~ ~r/mkl|blis/i,
      do: ok("BLAS", names),
      else:
        warning(
          "BLAS",
          "#{names} is not OpenBLAS: matrix products take 30 times as long",
          advice()
        )
  end

  defp advice do
    "install OpenBLAS (Debian: apt install libopenblas0-pthread), and run `cargo xtask mlx` in Mlx's folder"
  end

  # On Linux the system tells what a process has loaded.
  defp loaded do
    case File.read("/proc/self/maps") do
      {:ok, maps} ->
        for line <- String.split(maps, "\n"),
            [path] <- [Regex.run(~r{/.*\.so[.\d]*$}, line)],
            Path.basename(path) =~ @known,
            uniq: true,
            do: path

      {:error, _} ->
        []
    end
  end
end
