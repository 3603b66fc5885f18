defmodule Mlx.Doctor.Cuda do
  @moduledoc false

  # NVIDIA's libraries, which MLX's CUDA packages don't contain.

  import Mlx.Doctor, only: [ok: 2, warning: 3, error: 3]
  alias Mlx.Doctor.{Host, Runtime}

  # The packages on PyPI by the start of the library's name, for CUDA 12 and 13.
  @packages %{
    "libcublas" => {"nvidia-cublas-cu12", "nvidia-cublas"},
    "libcudart" => {"nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"},
    "libcudnn" => {"nvidia-cudnn-cu12", "nvidia-cudnn-cu13"},
    "libcufft" => {"nvidia-cufft-cu12", "nvidia-cufft"},
    "libnccl" => {"nvidia-nccl-cu12", "nvidia-nccl-cu13"},
    "libnvrtc" => {"nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc"},
    "libnvJitLink" => {"nvidia-nvjitlink-cu12", "nvidia-nvjitlink"}
  }

  def check({:ok, %Runtime{variant: "cuda" <> version, library: library}}) do
    case Host.run("ldd", [library]) do
      {listing, 0} -> libraries(listing, version)
      {_, _} -> warning("CUDA", "ldd can't list what MLX needs", "install ldd, or look by hand")
    end
  end

  def check(_runtime), do: []

  @doc false
  def packages(12), do: for({_, {package, _}} <- @packages, do: package)
  def packages(13), do: for({_, {_, package}} <- @packages, do: package)

  @doc false
  # What the listing of ldd says.
  def libraries(listing, version) do
    case Regex.scan(~r/^\s*(\S+) => not found/m, listing, capture: :all_but_first) do
      [] -> ok("CUDA", "all libraries are there")
      missing -> for [library] <- Enum.uniq(missing), do: missing(library, version)
    end
  end

  defp missing("libcuda.so" <> _ = library, _version),
    do: error("CUDA", "#{library} is missing", "install NVIDIA's driver, which brings it")

  defp missing(library, version) do
    case Enum.find(@packages, fn {start, _} -> String.starts_with?(library, start) end) do
      {_, {cuda12, cuda13}} ->
        package = if version == "12", do: cuda12, else: cuda13
        error("CUDA", "#{library} is missing", advice("pip install #{package}"))

      nil ->
        error("CUDA", "#{library} is missing", advice("install the package that has it"))
    end
  end

  defp advice(install), do: "#{install}, and run `cargo xtask mlx` in Mlx's folder"
end
